// First a client that only polls, all of whose requests must get to the process that knows it; then one whose connection is to
// last: it prints each echo, and ends when the connection does.
const { io } = require('socket.io-client')

const client = (transports) => {
  const socket = io(process.env.URL, { transports, reconnection: false, forceNew: true })
  for (const end of ['connect_error', 'disconnect']) socket.on(end, (reason) => reason === 'io client disconnect' || process.exit(1))
  return socket
}

const polling = client(['polling'])
const say = (left) => polling.emit('say', 'hello', () => (left > 0 ? say(left - 1) : polling.close() && last()))
polling.on('connect', () => say(20))

const last = () => {
  const socket = client(['websocket'])
  socket.on('connect', () => setInterval(() => socket.emit('say', 'hello', (heard) => console.log(heard)), 200))
}
