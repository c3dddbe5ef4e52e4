"""Clips and how models get them: frames and sound from media files and shards.

Nothing is imported here. Reading media files needs PyAV (`deepavfusion.data.media`). Crops, waveforms and everything
else that works on arrays do not, so that training from shards works without PyAV.
"""
