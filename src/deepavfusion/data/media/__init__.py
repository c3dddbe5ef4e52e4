"""One media file: its picture and its sound by time, whatever the container."""

from deepavfusion.data.media.media_error import MediaError
from deepavfusion.data.media.media_file import MediaFile

__all__ = ["MediaError", "MediaFile"]
