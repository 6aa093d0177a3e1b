"""What `make bench` is made of: processes, proxies, rows, rounds and the report. Only Python's standard library."""
