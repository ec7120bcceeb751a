// Package safetensors reads and writes the safetensors container: an eight-byte
// length, a JSON header, and the tensors' bytes behind it without holes.
//
// Start with [ReadHeader], which takes an [io.ReaderAt] and a size and gives the
// tensors in the order of their data, and with [NewHeader], its inverse. [Index] is
// the file that says which shard of a checkpoint holds which key. The package never
// touches tensor data and knows nothing about what a tensor means.
//
// # Validation
//
// A header is refused wherever the format's reference implementation
// (huggingface/safetensors, src/tensor.rs) refuses it, and in few more cases: a name
// that is empty, longer than 4096 bytes or stands twice, a shape of more than 64
// dimensions, more than 2^20 tensors, and bytes before the opening brace. What passes is
// sound: offsets tile the data from its first byte to the end of the file, and every
// size is what dtype and shape ask for. Fields that the format does not know are
// skipped. Nothing is allocated from a number in the file before that many bytes were
// seen to be there.
//
// # Errors
//
// Errors name the tensor and what was expected; the caller, who knows it, adds the
// name of the file.
//
// Functions keep no state and are safe for concurrent use.
package safetensors
