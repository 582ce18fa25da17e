<?php
header('Content-Type: text/plain');
echo $_SERVER['REQUEST_URI'] === '/echo' ? file_get_contents('php://input') : '@VERSION@';
