"""What runs on a device: Python 3.8 or later, numpy and the engine; nothing of the library, which may not be there.

The folder is a program, and so is an archive of it: `python agent worker` and `python agent serve`. Its files import
one another by relative imports, so that they are found in the library, in the folder and in the archive alike.
"""
