"""The service: HTTP and nothing else. `retrieval` knows what a search is; here requests become answers."""
