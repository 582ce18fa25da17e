from django.contrib.auth.models import User
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt


def version(request):
    return HttpResponse(f'@VERSION@ of {User.objects.count()}', content_type='text/plain')


@csrf_exempt
def echo(request):
    return HttpResponse(request.body, content_type='text/plain')


urlpatterns = [path('', version), path('echo', echo)]
