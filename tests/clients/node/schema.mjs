// A schema as Drizzle's documentation for Neon RLS has it.
import { sql } from 'drizzle-orm';
import { authenticatedRole, authUid, crudPolicy } from 'drizzle-orm/neon';
import { bigint, check, index, pgTable, text, unique } from 'drizzle-orm/pg-core';

export const todos = pgTable(
  'todos',
  {
    id: bigint({ mode: 'number' }).primaryKey().generatedAlwaysAsIdentity(),
    owner: text()
      .notNull()
      .default(sql`auth.user_id()`),
    task: text().notNull(),
  },
  (todo) => [
    crudPolicy({ role: authenticatedRole, read: authUid(todo.owner), modify: authUid(todo.owner) }),
    unique('todos_owner_task_key').on(todo.owner, todo.task),
    check('todos_task_check', sql`${todo.task} <> ''`),
    index('todos_owner').on(todo.owner),
  ],
);
