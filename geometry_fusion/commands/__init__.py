"""The command line: argument parsers and one function per command."""
