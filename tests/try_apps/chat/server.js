const http = require('http')
const express = require('express')
const { Server } = require('socket.io')

const app = express()
app.get('/', (request, response) => response.send('@VERSION@'))
app.post('/echo', express.text({ type: () => true }), (request, response) => response.send(request.body))

const server = http.createServer(app)
const io = new Server(server)
io.on('connection', (socket) => socket.on('say', (words, heard) => heard(words)))
server.listen(process.env.PORT, process.env.HOST)
process.on('SIGTERM', () => io.close())
