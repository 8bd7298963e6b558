"""One module for each page, next to its template; see `metaseg.report`."""
