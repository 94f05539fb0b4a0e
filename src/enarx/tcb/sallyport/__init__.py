"""The one door between keep and host: its vocabulary, its limits and the keep's half."""
