"""Import paths of PySyft 0.2; the code is in `syft.objects`."""
