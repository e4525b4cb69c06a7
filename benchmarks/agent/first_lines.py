"""The first lines that run on a device: they take the agent where it is not there yet, and become it.

They are sent as text to whatever Python a device has, so they are read by Python 2.7 too, to say that it is too old.
A line of JSON on stdin says where the agent lies: folder, name (its SHA-256 and .pyz), bytes, and the marker with which
every answer begins, as a login may print anything before.
"""

import errno
import hashlib
import json
import os
import sys

asked = json.loads(sys.stdin.readline())
answer = {"python": "%d.%d.%d" % sys.version_info[:3], "executable": sys.executable}
if sys.version_info < (3, 8):
    answer["error"] = "old"
else:
    try:
        folder = os.path.expanduser(asked["folder"])
        if folder.startswith("~"):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        folder = os.path.abspath(folder)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if os.stat(folder).st_uid != os.geteuid():
            raise OSError(errno.EACCES, "it belongs to another user")
        path = os.path.join(folder, asked["name"])
        data = b""
        if os.path.isfile(path):
            with open(path, "rb") as file:
                data = file.read()
        wanted = asked["name"].split(".")[0]
        if hashlib.sha256(data).hexdigest() != wanted:
            sys.stdout.write(asked["marker"] + json.dumps({"missing": True}) + "\n")
            sys.stdout.flush()
            data = sys.stdin.buffer.read(asked["bytes"])
            if hashlib.sha256(data).hexdigest() != wanted:
                raise OSError(errno.EIO, "what came is not what was sent")
            part = os.path.join(folder, "part-%d-agent" % os.getpid())
            try:
                with open(part, "wb") as file:
                    file.write(data)
                os.replace(part, path)
            finally:
                if os.path.exists(part):
                    os.unlink(part)
        os.utime(path)
        sys.stdout.write(asked["marker"] + json.dumps(answer) + "\n")
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, path, "serve", folder])
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        answer["error"] = "full" if full else "folder"
        answer["message"] = "%s" % error.strerror
        answer["folder"] = asked["folder"]
sys.stdout.write(asked["marker"] + json.dumps(answer) + "\n")
