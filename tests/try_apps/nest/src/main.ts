import { Body, Controller, Get, HttpCode, Module, Post } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { NestExpressApplication } from '@nestjs/platform-express'

@Controller()
class AppController {
  @Get()
  version(): string {
    return '@VERSION@'
  }

  @Post('echo')
  @HttpCode(200)
  echo(@Body() body: string): string {
    return body
  }
}

@Module({ controllers: [AppController] })
class AppModule {}

async function bootstrap() {
  const app = await NestFactory.create<NestExpressApplication>(AppModule)
  app.useBodyParser('text', { type: () => true })
  app.enableShutdownHooks()
  await app.listen(process.env.PORT, process.env.HOST)
}
bootstrap()
