"""The library that the service, the indexing job and training share: images, encoders, vector stores, collections."""
