{% from "jinja/macros.jinja" import python with context -%}{{ python(cookiecutter.variant ~ "/tests/small.py") -}}
