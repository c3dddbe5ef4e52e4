"""Bandstand, the embedded audio-visual world: real video files with sound in which every quantity is known exactly.

Drawn instruments play synthesised music. What can be discovered: which look tends to have which timbre, that bigger
bodies sound lower, that a stroke is seen and heard at one moment. Everything else is left to chance.

    world          version of the world, sources of chance
    shapes, looks  distance fields, and the six instruments drawn with them
    timbres        the four voices
    score          melodies, and the pose that follows from their strokes
    sources        sprite and sound tied together
    backdrop       background, clutter, light
    stage          composition, camera, noise, mixing
    splits, scenes who plays what in which split
    digits         the second cast: handwritten and spoken digits
    annotation     the truth about a clip
    writer         its files
    generation     many clips, in parallel
"""
