"""One module a page, each beside its template; see `metaseg.report`."""
