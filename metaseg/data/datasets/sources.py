"""The sources there are; a new importer is a module beside this one and a line here."""

from metaseg.data.datasets.builder import Builder
from metaseg.data.datasets.camvid import Camvid
from metaseg.data.datasets.catalog import Catalog
from metaseg.data.datasets.cityscapes import Cityscapes
from metaseg.data.datasets.dsb2018 import Dsb2018
from metaseg.data.datasets.folder import Folder
from metaseg.data.datasets.organelle import Organelle

__all__ = ["SOURCES"]

SOURCES: dict[str, type[Builder]] = {
    source.name: source
    for source in (Organelle, Dsb2018, Camvid, Cityscapes, Folder, Catalog)
}
