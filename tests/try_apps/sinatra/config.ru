require 'sinatra/base'

class Shop < Sinatra::Base
  get('/') { '@VERSION@' }
  post('/echo') { request.body.read }
end

run Shop
