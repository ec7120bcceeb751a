// Command dequantfs mounts a quantized checkpoint as a native one.
package main

func main() {}
