"""The commands of recsys-had, one thin file each."""
