// The kernel for one instruction set. Compiled several times, with LMANET_VARIANT as its namespace.

namespace lmanet::LMANET_VARIANT {

int kernel_placeholder() { return 0; }

}  // namespace lmanet::LMANET_VARIANT
