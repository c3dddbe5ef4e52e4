"""Bandstand, the generator of a synthetic audio-visual data set: video files with sound and exact ground truth.

Drawn instruments play synthesised music. A model can learn which look usually has which timbre, that bigger instruments
sound lower, and that a stroke is seen and heard at the same moment. Everything else is random. In this folder the data
set is called the *world*, a *cast* is a set of sources of sound, and a *look* and a *timbre* are what an instrument
looks and sounds like.

    world          version of the world, random generators
    shapes, looks  distance fields, and the six instruments drawn with them
    timbres        the four timbres
    score          melodies, and the movement (pose) that follows from their strokes
    sources        a sprite and its sound, as one source
    backdrop       background, clutter, light
    stage          composition, camera, noise, mixing
    splits, scenes which instruments play in the clips of each split
    digits         the second cast: handwritten and spoken digits
    things         the things of a folder of stamps: cut-out pictures, their sounds, their names
    stamps         a thing as a source
    photos         photographs as backgrounds
    stamp_scenes   the third cast: things that sound or are named
    writer         files of a clip (its annotation is in data/scenes)
    generation     many clips, in parallel
"""
