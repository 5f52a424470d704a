"""Checks each object of a manifest by Kubernetes' own schema: manifest.py MANIFEST SCHEMAS"""

import json
import pathlib
import sys

import jsonschema
import yaml

manifest, schemas = sys.argv[1:]
folder = pathlib.Path(schemas).resolve()


def beside(uri):
    """The schema of an address, which lies in the folder under its last part."""
    return json.load(open(folder / uri.rpartition("/")[2]))


for item in yaml.safe_load_all(open(manifest)):
    group, _, version = item["apiVersion"].rpartition("/")
    parts = [item["kind"].lower(), group.split(".")[0], version]
    path = folder / ("-".join(part for part in parts if part) + ".json")
    schema = json.load(open(path))
    resolver = jsonschema.RefResolver.from_schema(schema, handlers={"https": beside})
    jsonschema.Draft7Validator(schema, resolver=resolver).validate(item)
    print(item["kind"])
