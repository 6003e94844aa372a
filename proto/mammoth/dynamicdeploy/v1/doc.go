// Package dynamicdeployv1 has the commands to DynamicDeploy and its answers; dynamicdeploy.proto says who sends them.
package dynamicdeployv1
