"""Settings for the tests of Django, on the database that libpq's variables name."""

import os

from django.test.runner import DiscoverRunner

from unittests import Lines

ADDRESS = {"HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"], "USER": os.environ["PGUSER"], "PASSWORD": os.environ.get("PGPASSWORD", "")}
DATABASES = {alias: {"ENGINE": "django.db.backends.postgresql", "NAME": alias, **ADDRESS} for alias in ("default", "other")}
SECRET_KEY = "not one"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
TEST_RUNNER = "django_settings.Runner"


class Runner(DiscoverRunner):
    def get_resultclass(self):
        return Lines
