"""Objects in unordered photos: which photos show the same things, in which order they are processed
and what each one reads of the others (docs/photos.md).

`segment_photos` (collection.py) is the way in. In its order: pictures.py (any sizes onto one
canvas), similarity.py (which photos look alike), order.py (MUSt3R's memory, propagation),
overlap.py (which photos show the same places), session.py (SAM2), second_look.py, page.py.

Photos are numbered by their contents, never by their names, so that names change nothing.
"""
