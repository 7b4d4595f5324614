"""HTTP/1.1 over plain sockets: heads by h11 or httptools, bodies outside any parser, one code base for both loops."""
