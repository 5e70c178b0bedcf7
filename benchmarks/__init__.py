"""Benchmarks: learning over seeds, speed compared with other libraries, tables and figures."""
