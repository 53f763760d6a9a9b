#!/bin/sh
cat app.conf
