"""Django's ORM with persistent connections (CONN_MAX_AGE), a thread for each worker as its servers have."""

import threading

import django
from django.conf import settings
from django.core.signals import request_finished, request_started

import common

database = {
    "ENGINE": "django.db.backends.postgresql", "HOST": common.HOST, "PORT": common.PORT, "USER": common.USER,
    "NAME": common.DATABASE, "PASSWORD": common.PASSWORD or "",
    # Without an end, unless the docs' words are in force.
    "CONN_MAX_AGE": common.LIFETIME if common.RECOMMENDED else None, "CONN_HEALTH_CHECKS": common.RECOMMENDED,
}
settings.configure(
    DATABASES={"default": database, "other": {**database, "OPTIONS": {"options": "-c statement_timeout=500"}},
               "prepared": {**database, "OPTIONS": {"server_side_binding": True, "prepare_threshold": 0}}},
    INSTALLED_APPS=[], USE_TZ=True)
django.setup()

from django.contrib.postgres.fields import ArrayField  # noqa: E402  (after setup)
from django.db import DatabaseError, connection, connections, models, transaction as transactions  # noqa: E402

from use_psycopg import VALUES  # noqa: E402


class Thing(models.Model):
    x = models.IntegerField(primary_key=True)

    class Meta:
        app_label, db_table = "clients", "things"


class Kinds(models.Model):
    v0, v1 = models.BooleanField(), models.BigIntegerField()
    v2, v3 = models.DecimalField(max_digits=12, decimal_places=4), models.FloatField()
    v4, v5 = models.TextField(), models.BinaryField()
    v6, v7 = models.DateField(), models.DateTimeField()
    v8, v9 = models.UUIDField(), models.JSONField()
    v10, v11 = ArrayField(models.IntegerField()), models.TextField(null=True)

    class Meta:
        app_label, db_table = "clients", "things"


def fresh(model=Thing):
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS things")
    with connection.schema_editor() as editor:
        editor.create_model(model)


def value(sql, values=None, using=connection):
    with using.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchone()[0]


def state_of(sql, using=connection):
    try:
        with using.cursor() as cursor:
            cursor.execute(sql)
    except DatabaseError as error:
        return common.sqlstate(error)


def version():
    return f"Django {django.get_version()} (psycopg)"


def keywords():
    with connection.cursor() as cursor:
        cursor.execute(common.WHO)
        return cursor.fetchone()


def identity():
    return value("SELECT identity()")


def prepared():
    return [value("SELECT %s::int * 2", [n], connections["prepared"]) for n in (1, 2, 3)]


def batch():
    fresh()
    Thing.objects.bulk_create([Thing(x=n) for n in range(1, 101)])
    return Thing.objects.aggregate(models.Sum("x"))["x__sum"]


def transaction():
    fresh()
    with transactions.atomic():
        Thing.objects.create(x=1)
        savepoint = transactions.savepoint()
        Thing.objects.create(x=2)
        transactions.savepoint_rollback(savepoint)
        Thing.objects.create(x=3)
    with transactions.atomic():
        Thing.objects.create(x=4)
        transactions.set_rollback(True)
    return list(Thing.objects.order_by("x").values_list("x", flat=True))


def errors():
    fresh()
    Thing.objects.create(x=1)
    connection.set_autocommit(False)
    inside = [state_of("SELECT 1/0"), state_of("SELECT 1")]
    connection.rollback()
    connection.set_autocommit(True)
    return inside + [state_of(sql) for sql in ("INSERT INTO things VALUES (1)", "SELECT * FROM no_such_table", "SELEKT")]


def large():
    sent = "leasehold" * (common.LARGE // 9) + "x" * (common.LARGE % 9)
    with connection.cursor() as cursor:
        cursor.execute("SELECT length(v), v FROM (SELECT %s::text AS v) t", [sent])
        length, back = cursor.fetchone()
        return [length / 1024 / 1024, back == sent]


def copy():
    """By psycopg's cursor, whose methods Django's own hands on."""
    fresh()
    with connection.cursor() as cursor:
        with cursor.copy("COPY things FROM STDIN") as into:
            for n in range(1, 10_001):
                into.write_row((n,))
        with cursor.copy("COPY things TO STDOUT") as out:
            total = sum(int(line) for line in b"".join(out).split())
    return [Thing.objects.count(), total]


def notify():
    """`connection.connection` is psycopg's."""
    with connection.cursor() as cursor, connections["other"].cursor() as other:
        cursor.execute("LISTEN news")
        other.execute("NOTIFY news, 'said'")
    return next(connection.connection.notifies(timeout=10, stop_after=1)).payload


def cursor():
    """Through a server-side cursor, by `iterator`."""
    fresh()
    Thing.objects.bulk_create([Thing(x=n) for n in range(1, 1001)])
    return sum(Thing.objects.values_list("x", flat=True).iterator(chunk_size=100))


def cancel():
    running = connection.connection

    def when_it_sleeps():
        # In a thread `connection` is one of its own.
        while not value(common.SLEEPERS):
            pass
        running.cancel_safe()
        connections.close_all()
    canceller = threading.Thread(target=when_it_sleeps)
    canceller.start()
    state = state_of(common.SLEEP)
    canceller.join()
    return [state, value("SELECT 1")]


def timeout():
    other = connections["other"]
    return [state_of("SELECT pg_sleep(30)", other), value("SELECT 1", using=other)]


def types():
    """A column for each type, as its fields make them."""
    fresh(Kinds)
    Kinds.objects.create(**{f"v{n}": value for n, value in enumerate(VALUES)})
    line = value("SELECT concat_ws('|', v0, v1, v2, v3, v4, v5, v6, v7, v8, v9, v10, coalesce(v11, '')) FROM things")
    row = Kinds.objects.get()
    back = [getattr(row, f"v{n}") for n in range(len(VALUES))]
    back[5] = bytes(back[5])
    return [line, back == VALUES]


def reconnect():
    """After a request whose connection was found broken the next one has a new connection."""
    said = state_of("SELECT end_session()")
    request_finished.send(sender=None)
    return [said, value("SELECT 1")]


def pool():
    done = []

    def work():
        for _ in range(5):
            request_started.send(sender=None)
            with transactions.atomic():
                done.append(value("SELECT 1"))
            request_finished.send(sender=None)
        connections.close_all()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done)


def work_on_pool(stop, seen):
    def transact():
        request_started.send(sender=None)
        try:
            with transactions.atomic():
                value("SELECT 1")
                value("SELECT 2")
        finally:
            request_finished.send(sender=None)
    common.in_threads(stop, seen, transact)


if __name__ == "__main__":
    common.main(lambda: common.run([version, keywords, identity, prepared, batch, transaction, errors, large, copy, notify, cursor,
                                    cancel, timeout, types, reconnect, pool]), work_on_pool)
