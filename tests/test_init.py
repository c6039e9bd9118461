import subprocess
import sys

import dcn

PUBLIC = {
    "ConvOffset2D",
    "DeformableConv2D",
    "DeformableRoIPooling2D",
    "__version__",
    "cnn",
    "copy_weights_by_name",
    "dead_weights",
    "deform_conv2d",
    "deform_roi_pool",
    "deform_conv_cnn",
    "deformable_cnn",
    "deformable_mini_resnet",
    "mini_resnet",
    "resample_by_offsets",
}


def test_public_names():
    assert set(dcn.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(dcn, name)


def test_the_command_does_not_load_tensorflow():
    code = "import sys; sys.argv = ['dcn', '--help']\nfrom dcn.study.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "assert 'dcn.study.cli' in sys.modules and not {'tensorflow', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
