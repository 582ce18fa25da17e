const fastify = require('fastify')()
const greeting = require('greeting')

// The system's may be another one.
if (!process.version.startsWith('v22.')) throw new Error(`this is Node ${process.version}`)

fastify.addContentTypeParser('*', { parseAs: 'string' }, (request, body, done) => done(null, body))
fastify.get('/', async () => greeting)
fastify.post('/echo', async (request) => request.body)
fastify.listen({ port: process.env.PORT, host: process.env.HOST })
process.on('SIGTERM', () => fastify.close())
