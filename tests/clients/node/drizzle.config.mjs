// For drizzle-kit, which makes what schema.mjs describes.
export default {
  dialect: 'postgresql',
  schema: './schema.mjs',
  out: process.env.MIGRATIONS,
  dbCredentials: { url: process.env.ADMIN_URL },
  schemaFilter: ['public'],
  // `authenticated` is there already: it is Neon's name, and auth.create_roles() makes it.
  entities: { roles: { provider: 'neon' } },
};
