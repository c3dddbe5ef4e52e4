"""The media reader: frames and sound of a file by time, for any container."""

from deepavfusion.data.media.media_error import MediaError
from deepavfusion.data.media.media_file import MediaFile

__all__ = ["MediaError", "MediaFile"]
