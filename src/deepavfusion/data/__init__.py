"""Clips as the models need them: pictures and sound out of media files and shards.

Nothing is imported here. Reading media files needs PyAV (`deepavfusion.data.media`); crops, waveforms and
everything that works on arrays does not, so that training from shards runs where PyAV is not installed.
"""
