"""This package's models behind the interfaces of other libraries. Each module needs its library, as an extra."""
