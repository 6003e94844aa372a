// Package apiv1 is what people, the command line and other programs ask of a zone, as gRPC and as REST/JSON.
package apiv1

import _ "embed"

// OpenAPIVersion stands in OpenAPI for the version of the program that serves it.
const OpenAPIVersion = "0.0.0"

// OpenAPI describes the REST face of the services of this package (OpenAPI 2, JSON).
//
//go:embed openapi.swagger.json
var OpenAPI string
