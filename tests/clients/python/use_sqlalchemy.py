"""SQLAlchemy over psycopg 3: its pool, Core and ORM."""

import threading

import sqlalchemy
from sqlalchemy import Integer, cast, create_engine, func, insert, literal, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

import common
from use_psycopg import VALUES

URL = common.URL.replace("postgresql://", "postgresql+psycopg://")


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "things"
    x: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)


def engine(**options):
    return create_engine(URL, **{"poolclass": NullPool, **options})


def value(connection, sql, **values):
    return connection.execute(text(sql), values).scalar()


def fresh(one):
    Base.metadata.drop_all(one)
    Base.metadata.create_all(one)


def driver(connection):
    """The driver's own connection, for what SQLAlchemy has no words for; its documentation names this way."""
    return connection.connection.driver_connection


def state_of(connection, sql):
    try:
        connection.execute(text(sql))
    except sqlalchemy.exc.DBAPIError as error:
        return common.sqlstate(error)


def version():
    return f"SQLAlchemy {sqlalchemy.__version__} (psycopg)"


def url():
    with engine().connect() as connection:
        return list(connection.execute(text(common.WHO)).one())


def keywords():
    made = sqlalchemy.URL.create("postgresql+psycopg", username=common.USER, password=common.PASSWORD, host=common.HOST,
                                 port=common.PORT, database=common.DATABASE)
    with create_engine(made).connect() as connection:
        return list(connection.execute(text(common.WHO)).one())


def identity():
    with engine().connect() as connection:
        return value(connection, "SELECT identity()")


def prepared():
    with create_engine(URL, connect_args={"prepare_threshold": 0}).connect() as connection:
        return [value(connection, "SELECT CAST(:n AS int) * 2", n=n) for n in (1, 2, 3)]


def batch():
    one = engine()
    fresh(one)
    with Session(one) as session, session.begin():
        session.execute(insert(Thing), [{"x": n} for n in range(1, 101)])
        return session.scalar(select(sqlalchemy.func.sum(Thing.x)))


def transaction():
    one = engine()
    fresh(one)
    with Session(one) as session:
        session.add(Thing(x=1))
        session.flush()
        nested = session.begin_nested()
        session.add(Thing(x=2))
        session.flush()
        nested.rollback()
        session.add(Thing(x=3))
        session.commit()
        session.add(Thing(x=4))
        session.rollback()
        return list(session.scalars(select(Thing.x).order_by(Thing.x)))


def errors():
    one = engine()
    fresh(one)
    with one.connect() as connection:
        inside = [state_of(connection, "SELECT 1/0"), state_of(connection, "SELECT 1")]
    with one.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("INSERT INTO things VALUES (1)"))
        return inside + [state_of(connection, sql) for sql in (
            "INSERT INTO things VALUES (1)", "SELECT * FROM no_such_table", "SELEKT")]


def large():
    sent = "leasehold" * (common.LARGE // 9) + "x" * (common.LARGE % 9)
    with engine().connect() as connection:
        length, back = connection.execute(text("SELECT length(v), v FROM (SELECT CAST(:v AS text) AS v) t"), {"v": sent}).one()
        return [length / 1024 / 1024, back == sent]


def copy():
    one = engine()
    fresh(one)
    with one.begin() as connection, driver(connection).cursor() as cursor:
        with cursor.copy("COPY things FROM STDIN") as into:
            for n in range(1, 10_001):
                into.write_row((n,))
        with cursor.copy("COPY things TO STDOUT") as out:
            total = sum(int(line) for line in b"".join(out).split())
        return [value(connection, "SELECT count(*) FROM things"), total]


def notify():
    one = engine(isolation_level="AUTOCOMMIT")
    with one.connect() as listener, one.connect() as other:
        listener.execute(text("LISTEN news"))
        other.execute(text("NOTIFY news, 'said'"))
        return next(driver(listener).notifies(timeout=10, stop_after=1)).payload


def cursor():
    with engine().connect().execution_options(yield_per=100) as connection:
        return sum(connection.execute(text("SELECT * FROM generate_series(1, 1000)")).scalars())


def cancel():
    one = engine(isolation_level="AUTOCOMMIT")
    with one.connect() as connection, one.connect() as other:
        def when_it_sleeps():
            while not value(other, common.SLEEPERS):
                pass
            driver(connection).cancel_safe()
        canceller = threading.Thread(target=when_it_sleeps)
        canceller.start()
        state = state_of(connection, common.SLEEP)
        canceller.join()
        return [state, value(connection, "SELECT 1")]


def timeout():
    with engine(connect_args={"options": "-c statement_timeout=500"}, isolation_level="AUTOCOMMIT").connect() as connection:
        return [state_of(connection, "SELECT pg_sleep(30)"), value(connection, "SELECT 1")]


def types():
    kinds = [sqlalchemy.Boolean, sqlalchemy.BigInteger, sqlalchemy.Numeric, sqlalchemy.Double, sqlalchemy.Text,
             sqlalchemy.LargeBinary, sqlalchemy.Date, sqlalchemy.DateTime(timezone=True), sqlalchemy.Uuid, JSONB, ARRAY(Integer),
             sqlalchemy.Text]
    sent = [cast(literal(value, kind), kind) for value, kind in zip(VALUES, kinds, strict=True)]
    line = func.concat_ws(literal("|"), *sent[:11], func.coalesce(sent[11], literal("")))
    with engine().connect() as connection:
        connection.execute(text("SET timezone = 'UTC'"))
        back = [cast(literal(value, kind), kind).label(f"v{n}") for n, (value, kind) in enumerate(zip(VALUES, kinds))]
        return [connection.scalar(select(line)), list(connection.execute(select(*back)).one()) == VALUES]


def reconnect():
    """A pool of one: the session that has ended is replaced."""
    one = create_engine(URL, pool_size=1, max_overflow=0)
    with one.connect() as connection:
        said = state_of(connection, "SELECT end_session()")
    with one.connect() as connection:
        return [said, value(connection, "SELECT 1")]


def pool():
    one = create_engine(URL, pool_size=4, max_overflow=0)
    done = []

    def work():
        for _ in range(5):
            with one.begin() as connection:
                done.append(value(connection, "SELECT 1"))
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done)


def work_on_pool(stop, seen):
    settings = {"pool_pre_ping": True, "pool_recycle": common.LIFETIME} if common.RECOMMENDED else {}
    one = create_engine(URL, pool_size=common.WORKERS, max_overflow=0, **settings)

    def transact():
        with one.begin() as connection:
            connection.execute(text("SELECT 1"))
            connection.execute(text("SELECT 2"))
    common.in_threads(stop, seen, transact)


if __name__ == "__main__":
    common.main(lambda: common.run([version, url, keywords, identity, prepared, batch, transaction, errors, large, copy, notify,
                                    cursor, cancel, timeout, types, reconnect, pool]), work_on_pool)
