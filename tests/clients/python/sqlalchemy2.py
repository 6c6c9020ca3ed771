"""SQLAlchemy's ORM over psycopg 3: an event presents the session's token whenever a transaction begins."""

import unittest
from contextlib import contextmanager

from sqlalchemy import FetchedValue, create_engine, event, exc, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from scenario import CLIENTS, DATABASE_URL, Scenario

engine = create_engine(
    DATABASE_URL.replace("postgres://", "postgresql+psycopg://"),
    pool_size=CLIENTS,
    max_overflow=0,
    # Before its version 1.21, PgBouncer does not keep track of prepared statements.
    connect_args={"prepare_threshold": None},
)


class Base(DeclarativeBase):
    pass


class Todo(Base):
    __tablename__ = "todos"
    id: Mapped[int] = mapped_column(primary_key=True, server_default=FetchedValue())
    owner: Mapped[str] = mapped_column(server_default=FetchedValue())
    task: Mapped[str]


def present(db, token):
    db.execute(text("SELECT auth.login(:token)"), {"token": token})


@event.listens_for(Session, "after_begin")
def after_begin(session, transaction, connection):
    # Not when a savepoint begins: the transaction's user goes on.
    if not transaction.nested:
        present(connection, session.info["token"])


@contextmanager
def as_user(token):
    with Session(engine, info={"token": token}) as session, session.begin():
        yield session


class SqlAlchemy(Scenario, unittest.TestCase):
    Error = exc.DBAPIError
    as_user = staticmethod(as_user)
    present = staticmethod(present)

    def user_id(self, db):
        return db.scalar(text("SELECT auth.user_id()"))

    def todos(self, db):
        return [(todo.owner, todo.task) for todo in db.scalars(select(Todo).order_by(Todo.id))]

    def add(self, db, task, owner=None):
        db.add(Todo(task=task, owner=owner) if owner else Todo(task=task))
        db.flush()

    def value(self, db, sql):
        return db.scalar(text(sql))

    def savepoint(self, db):
        return db.begin_nested()

    def idle(self):
        with engine.connect() as connection:
            return self.user_id(connection)

    def said(self, error):
        return error.orig

    @classmethod
    def tearDownClass(cls):
        engine.dispose()


if __name__ == "__main__":
    unittest.main()
