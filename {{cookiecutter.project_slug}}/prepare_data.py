{% from "jinja/macros.jinja" import python with context -%}{{ python(cookiecutter.variant ~ "/prepare_data.py") -}}
