import { Hono } from 'hono'

const app = new Hono()
app.get('/', (context) => context.text('@VERSION@'))
app.post('/echo', async (context) => context.text(await context.req.text()))
export default { port: process.env.PORT, hostname: process.env.HOST, fetch: app.fetch }
