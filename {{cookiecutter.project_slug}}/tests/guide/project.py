{% from "jinja/macros.jinja" import python with context -%}{{ python("common/tests/guide/project.py") -}}
