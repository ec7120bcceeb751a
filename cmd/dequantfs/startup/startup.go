// Package startup ends the process with a message where its limits are too low to start it.
// Packages that the command imports open files while they are initialized, and panic where they may
// not.
//
// This one is initialized before them: those whose imports are ready are initialized in the order
// of their paths, and it imports only packages that are ready first.
package startup
