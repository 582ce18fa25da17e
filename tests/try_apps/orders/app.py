import os

from celery import Celery
from flask import Flask, request

app = Flask(__name__)
celery = Celery('app', broker=os.environ['REDIS'], backend=os.environ['REDIS'])


@celery.task
def add(one, other):
    return one + other


@app.get('/')
def version():
    return '@VERSION@'


@app.post('/echo')
def echo():
    return request.get_data()


@app.get('/sum')
def sum_by_worker():
    return f'{add.delay(1, 2).get(timeout=20)}\n'
