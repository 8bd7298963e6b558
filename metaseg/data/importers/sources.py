"""The sources there are; a new importer is a module beside this one and a line here."""

from metaseg.data.importers.builder import Builder
from metaseg.data.importers.camvid import Camvid
from metaseg.data.importers.catalog import Catalog
from metaseg.data.importers.cityscapes import Cityscapes
from metaseg.data.importers.dsb2018 import Dsb2018
from metaseg.data.importers.folder import Folder
from metaseg.data.importers.organelle import Organelle

__all__ = ["SOURCES"]

SOURCES: dict[str, type[Builder]] = {
    source.name: source
    for source in (Organelle, Dsb2018, Camvid, Cityscapes, Folder, Catalog)
}
