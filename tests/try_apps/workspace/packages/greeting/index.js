module.exports = '@VERSION@'
