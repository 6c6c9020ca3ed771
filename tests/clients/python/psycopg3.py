"""psycopg 3 with its pool, and auth.jwt_session_init(): the role stays, and policies alone tell users apart."""

import unittest
from contextlib import contextmanager

from psycopg_pool import ConnectionPool

from scenario import CLIENTS, DATABASE_URL, Scenario

# Before its version 1.21, PgBouncer does not keep track of prepared statements.
pool = ConnectionPool(
    DATABASE_URL, min_size=1, max_size=CLIENTS, kwargs={"prepare_threshold": None}, open=True
)


def present(db, token):
    db.execute("SELECT auth.jwt_session_init(%s, true)", [token])


@contextmanager
def as_user(token):
    with pool.connection() as db, db.transaction():
        if token is not None:
            present(db, token)
        yield db


class Psycopg(Scenario, unittest.TestCase):
    as_user = staticmethod(as_user)
    present = staticmethod(present)

    def user_id(self, db):
        return db.execute("SELECT auth.user_id()").fetchone()[0]

    def todos(self, db):
        return db.execute("SELECT owner, task FROM todos ORDER BY id").fetchall()

    def add(self, db, task, owner=None):
        if owner:
            db.execute("INSERT INTO todos (task, owner) VALUES (%s, %s)", [task, owner])
        else:
            db.execute("INSERT INTO todos (task) VALUES (%s)", [task])

    def value(self, db, sql):
        return db.execute(sql).fetchone()[0]

    def savepoint(self, db):
        return db.transaction()

    def idle(self):
        with pool.connection() as db:
            return self.user_id(db)

    @classmethod
    def tearDownClass(cls):
        pool.close()


if __name__ == "__main__":
    unittest.main()
