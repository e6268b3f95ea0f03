"""The offline job: encodes images and publishes a collection. The service never imports it."""
