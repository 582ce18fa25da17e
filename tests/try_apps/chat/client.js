// A client whose connection is to last: it prints each echo, and ends when the connection does.
const { io } = require('socket.io-client')

const socket = io(process.env.URL, { transports: ['websocket'], reconnection: false })
const say = () => socket.emit('say', 'hello', (heard) => console.log(heard))
socket.on('connect', () => setInterval(say, 200))
for (const end of ['connect_error', 'disconnect']) socket.on(end, () => process.exit(1))
